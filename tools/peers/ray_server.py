"""The graph behind Ray Serve: ``GRAPH=... REQUESTS=... PORT=... ray_server.py``.

Bodies are raw pixels and raw vectors.
"""

import os
import time

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

SHAPE = tuple(int(n) for n in os.environ["SHAPE"].split(","))
GRAPH, REQUESTS = os.environ["GRAPH"], int(os.environ["REQUESTS"])


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Embed:
    """One replica, as many requests per batch as make up a batch of images."""

    def __init__(self) -> None:
        """Load the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(GRAPH, options)

    @serve.batch(max_batch_size=REQUESTS, batch_wait_timeout_s=0.0)
    async def run(self, several: list[np.ndarray]) -> list[np.ndarray]:
        """Run the requests of a batch together."""
        rows = self.session.run(["embedding"], {"images": np.concatenate(several)})[0]
        return np.split(rows, np.cumsum([len(images) for images in several])[:-1])

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        images = np.frombuffer(await request.body(), np.uint8).reshape(-1, *SHAPE)
        rows = await self.run(images)
        return Response(rows.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Embed.bind(), route_prefix="/")
    while True:
        time.sleep(3600)
