// Posts each file to URL, with its length known and then chunked, by fetch and by node:http.
import { createReadStream, readFileSync } from "node:fs";
import { request } from "node:http";
import { Readable } from "node:stream";

const [url, key, ...files] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };

function post(file, length) {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: "POST", headers: { ...headers, ...length } }, async (answer) => {
      let text = "";
      for await (const part of answer) text += part;
      resolve(`${answer.statusCode} ${text.trim()}`);
    });
    sent.on("error", reject);
    createReadStream(file).pipe(sent);
  });
}

for (const file of files) {
  const data = readFileSync(file);
  for (const body of [data, Readable.toWeb(createReadStream(file))]) {
    const answer = await fetch(url, { method: "POST", headers, body, duplex: "half" });
    console.log(answer.status, (await answer.text()).trim());
  }
  console.log(await post(file, { "Content-Length": data.length }));
  console.log(await post(file, {}));
}
