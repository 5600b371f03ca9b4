import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/json")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = json.dumps({"path": self.path, "agent": "python" in self.headers["User-Agent"]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Set-Cookie", "k=v")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(body), 1000):
            part = body[i : i + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://localhost:{server.server_port}"
with requests.Session() as session:
    session.trust_env = False
    print(session.get(base + "/json?a=1", timeout=30).json())
    reply = session.get(base + "/redirect", timeout=30)
    print(reply.status_code, len(reply.history), session.cookies.get_dict())
    reply = session.post(base + "/echo", data=b"z" * 50_000, timeout=30)
    print(reply.status_code, len(reply.content))
    reply = session.post(base + "/echo", files={"f": ("name", b"content")}, timeout=30)
    print(b"content" in reply.content)
    print([session.get(f"{base}/{i}", timeout=30).status_code for i in range(20)].count(200))
server.shutdown()
server.server_close()
try:
    requests.get(base, timeout=5)
except requests.ConnectionError:
    print("refused")
