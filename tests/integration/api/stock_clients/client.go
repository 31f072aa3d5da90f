// Posts each file to URL, with its length known and then chunked, by the default client.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	for _, name := range os.Args[3:] {
		data, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		chunked := struct{ io.Reader }{bytes.NewReader(data)} // a reader whose length is not known
		for _, body := range []io.Reader{bytes.NewReader(data), chunked} {
			request, err := http.NewRequest("POST", os.Args[1], body)
			if err != nil {
				panic(err)
			}
			request.Header.Set("Authorization", "Bearer "+os.Args[2])
			request.Header.Set("Content-Type", "application/json")
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				panic(err)
			}
			text, err := io.ReadAll(answer.Body)
			if err != nil {
				panic(err)
			}
			fmt.Println(answer.StatusCode, strings.TrimSpace(string(text)))
		}
	}
}
