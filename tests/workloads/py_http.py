# http.server and urllib: many requests from many threads.
import hashlib
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        parts = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(parts.query)
        if parts.path == "/big":
            self.answer(200, b"0123456789abcdef" * (int(query["kib"][0]) * 64))
        elif parts.path == "/square":
            n = int(query["n"][0])
            self.answer(200, json.dumps({"n": n, "square": n * n}).encode())
        else:
            self.answer(404, b"nothing here")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, hashlib.sha256(body).hexdigest().encode())

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
thread = threading.Thread(target=server.serve_forever)
thread.start()
base = f"http://127.0.0.1:{server.server_port}"


def square(n):
    with urllib.request.urlopen(f"{base}/square?n={n}", timeout=30) as r:
        return json.load(r)["square"]


with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(square, range(40))))
with urllib.request.urlopen(base + "/big?kib=2048", timeout=30) as r:
    body = r.read()
    print(r.status, len(body), hashlib.md5(body).hexdigest())
with urllib.request.urlopen(base + "/hash", data=b"x" * 1_000_000, timeout=30) as r:
    print(r.read().decode())
try:
    urllib.request.urlopen(base + "/none", timeout=30)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
server.shutdown()
thread.join()
server.server_close()
try:
    urllib.request.urlopen(base + "/square?n=1", timeout=30)
except urllib.error.URLError as error:
    print(type(error.reason).__name__)
