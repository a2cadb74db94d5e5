"""A bad way to the API server: an HTTP/1.1 proxy that holds every answer back for a while, or fails every second
request of each client after the server has carried it out.

usage: faulty_proxy.py ADDRESS PORT UPSTREAM_PORT CERTIFICATE KEY DELAY_MS FAIL(0|1)
"""

import http.client
import http.server
import itertools
import ssl
import sys
import threading
import time

ADDRESS, PORT, UPSTREAM, CERTIFICATE, KEY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
DELAY_S, FAIL = int(sys.argv[6]) / 1000, sys.argv[7] == "1"
HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")
REFUSAL = b'{"kind":"Status","apiVersion":"v1","status":"Failure","message":"on purpose","code":500}'
counts, counts_lock = {}, threading.Lock()
upstream_tls = ssl.create_default_context(cafile=CERTIFICATE)


def fails_now(client):
    with counts_lock:
        return FAIL and next(counts.setdefault(client, itertools.count())) % 2 == 1


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 700

    def setup(self):
        self.request.do_handshake()  # here, not where connections are accepted
        super().setup()

    def forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fails = fails_now(self.client_address[0])
        watch = "watch=1" in self.path
        if fails and watch:
            self.answer(500, {"Content-Type": "application/json"}, REFUSAL)
            return
        server = http.client.HTTPSConnection(ADDRESS, UPSTREAM, context=upstream_tls)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP + ("host",)}
        server.request(self.command, self.path, body or None, headers)
        answer = server.getresponse()
        time.sleep(DELAY_S)
        headers = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
        if watch and answer.status == 200:
            self.stream(answer, headers)
        elif fails:
            self.answer(500, {"Content-Type": "application/json"}, REFUSAL)
        else:
            self.answer(answer.status, headers, answer.read())
        server.close()

    def answer(self, code, headers, body):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, answer, headers):
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while chunk := answer.read1(65536):
            time.sleep(DELAY_S)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, _request, _client):
        pass  # one that has gone away


server = Server((ADDRESS, PORT), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERTIFICATE, KEY)
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
