"""Face recognition as a micro-service: POST an image to /faces, get the boxes of the faces in it as JSON.

GET /healthz is for probes, GET /metrics for Prometheus. Settings: PORT (8080), MAX_BYTES (5 MiB).
"""
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json

import cv2
import numpy
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

MAX_BYTES = int(os.environ.get("MAX_BYTES", 5 * 1024 * 1024))
REQUESTS = Counter("http_requests_total", "Requests answered.", ["code"])
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests being worked on.")
DURATION = Histogram("http_request_duration_seconds", "Time from a request's arrival to its answer.")
DETECTOR = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
# The classifier keeps state between calls, so one thread at a time may use it.
LOCK = threading.Lock()


def find_faces(data: bytes) -> list[dict]:
    image = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ValueError("the body is not an image that OpenCV can read (JPEG, PNG, ...)")
    with LOCK:
        boxes = DETECTOR.detectMultiScale(image, scaleFactor=1.1, minNeighbors=5)
    return [dict(zip(("x", "y", "width", "height"), map(int, box))) for box in boxes]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, b"ok", "text/plain")
        elif self.path == "/metrics":
            self.answer(200, generate_latest(), CONTENT_TYPE_LATEST)
        else:
            self.answer(404, b"try POST /faces", "text/plain")

    @IN_FLIGHT.track_inprogress()
    def do_POST(self):
        started = time.monotonic()
        size = self.headers.get("Content-Length", "")
        if self.path != "/faces":
            code, body = 404, {"error": "try POST /faces"}
        elif not size.isdigit():
            code, body = 411, {"error": "Content-Length is needed"}
        elif int(size) > MAX_BYTES:
            code, body = 413, {"error": f"at most {MAX_BYTES} bytes"}
        else:
            try:
                code, body = 200, {"faces": find_faces(self.rfile.read(int(size)))}
            except ValueError as e:
                code, body = 400, {"error": str(e)}
        if code in (404, 411, 413):
            self.close_connection = True  # the body was not read
        self.answer(code, json.dumps(body).encode(), "application/json")
        REQUESTS.labels(code).inc()
        DURATION.observe(time.monotonic() - started)

    def answer(self, code: int, body: bytes, kind: str):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", 8080))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
