# Posts each file to URL by curl: with its length known, chunked, and with the offer of HTTP/2, on one connection.
#   sh client.sh URL KEY FILE...
set -eu
url="$1"
key="$2"
shift 2
for file in "$@"; do
    for option in -s "-HTransfer-Encoding: chunked" --http2; do
        curl -sS "$option" -w ' %{http_code}\n' -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
            --data-binary "@$file" "$url" | tr -d '\n' | sed 's/^\(.*\) \([0-9]*\)$/\2 \1/'
        echo
    done
done
