import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;

/** Posts each file to URL, with its length known and then chunked, by the default client: it asks for HTTP/2 first. */
class Client {
    public static void main(String[] args) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int n = 2; n < args.length; n++) {
            var file = Path.of(args[n]);
            var known = HttpRequest.BodyPublishers.ofFile(file);
            var chunked = HttpRequest.BodyPublishers.fromPublisher(HttpRequest.BodyPublishers.ofFile(file));
            for (var body : new HttpRequest.BodyPublisher[] {known, chunked}) {
                var request = HttpRequest.newBuilder(URI.create(args[0]))
                    .header("Authorization", "Bearer " + args[1])
                    .header("Content-Type", "application/json")
                    .POST(body)
                    .build();
                var answer = client.send(request, BodyHandlers.ofString());
                System.out.println(answer.statusCode() + " " + answer.body().strip());
            }
        }
    }
}
