# A small HTTPS server on the loopback device, which fails on request. Arguments: CERTIFICATE KEY DIRECTORY. Serves DIRECTORY's files under
# paths that say how: /KIND/FILE. Writes DIRECTORY/ports (HTTPS and plain HTTP) when it listens, and one line a request to DIRECTORY/log.
import hashlib, http.server, os, ssl, sys, threading, time

cert, key, root = sys.argv[1:4]
seen = {}
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def head(self, status, length, **more):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for k, v in more.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()

    def do_GET(self):
        kind, name = self.path.strip("/").split("/", 1)
        wanted = self.headers.get("Range")
        with lock:
            times = seen[self.path] = seen.get(self.path, 0) + 1
            with open(root + "/log", "a") as f:
                secure = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
                f.write(f"{secure} {self.path} {wanted or '-'} {self.headers.get('If-Range') or '-'}\n")
        tls, plain = open(root + "/ports").read().split()
        if kind == "redirect":
            return self.head(302, 0, Location=f"https://localhost:{tls}/ok/{name}")
        if kind == "tohttp":
            return self.head(302, 0, Location=f"http://localhost:{plain}/ok/{name}")
        if kind == "loop":
            return self.head(302, 0, Location=self.path)
        if kind == "missing":
            self.head(404, 5)
            return self.wfile.write(b"none\n")
        if kind == "busy" and times <= 2:
            return self.head(503, 0)
        data = open(os.path.join(root, name), "rb").read()
        if kind == "changed" and times > 1:  # a new version of the file
            data = open(os.path.join(root, name + ".new"), "rb").read()
        etag = '"' + hashlib.sha256(data).hexdigest()[:16] + '"'
        start = 0
        if wanted and kind not in ("norange",) and self.headers.get("If-Range", etag) == etag:
            start = int(wanted[len("bytes="):-1])
            if start >= len(data):
                return self.head(416, 0, Content_Range=f"bytes */{len(data)}")
        claimed = start
        if kind == "otherpart" and start:
            claimed = start = start // 2
        if kind == "liar" and start:  # says one thing, sends another
            claimed, start = start, start - 1
        body = data[start:]
        more = {} if kind == "notag" else {"ETag": etag}
        if claimed:
            more["Content_Range"] = f"bytes {claimed}-{len(data) - 1}/{len(data)}"
        if kind == "liar" and claimed:
            body = body[:-1]
        if kind == "long":  # more than it should be, of unsaid length
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body + b"more")
            self.close_connection = True
            return
        self.head(206 if claimed else 200, len(body), **more)
        if kind in ("cut", "changed", "norange", "otherpart", "liar", "notag") and times == 1:
            body = body[: len(body) // 3]
            self.close_connection = True
        if kind == "stall":
            self.wfile.write(b"" if start else body[:1000])
            self.wfile.flush()
            time.sleep(30)
            return
        if kind == "cuts":  # a piece a connection
            body = body[:200000]
            self.close_connection = True
        if kind == "slow":
            for i in range(0, len(body), 20000):
                self.wfile.write(body[i : i + 20000])
                self.wfile.flush()
                time.sleep(0.05)
            return
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass


tls, plain = Server(("127.0.0.1", 0), Handler), Server(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
tls.socket = context.wrap_socket(tls.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
with open(root + "/ports.new", "w") as f:
    f.write(f"{tls.server_port} {plain.server_port}\n")
os.rename(root + "/ports.new", root + "/ports")
tls.serve_forever()
