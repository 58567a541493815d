"""A small web server on this computer that serves files well or badly."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What a server serves, how it behaves, and what it was asked.

    `ranges`: whether it can resume. `breaks`: at which byte of the file it drops the connection,
    one number per connection, as long as there are any. `announce`: whether it says the length.
    `shift`: how many bytes off a resumed answer begins.
    """

    def __init__(self, files=None, *, ranges=True, breaks=(), announce=True, shift=0):
        self.files = files or {}
        self.ranges, self.breaks, self.announce = ranges, list(breaks), announce
        self.shift = shift
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        wanted = self.headers.get("Range")
        site.requests.append((self.path.strip("/"), wanted))
        body = site.files.get(self.path.strip("/"))
        if body is None:
            self.send_error(404)
            return
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and site.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            start += site.shift
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.announce:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = site.breaks.pop(0) if site.breaks else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(site):
    """Serve a site; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = site
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
