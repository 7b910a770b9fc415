"""The graph behind LitServe: ``GRAPH=... REQUESTS=... PORT=... litserve_server.py``.

LitServe reads requests as JSON, so pixels travel as base64; answers are raw vectors.
"""

import base64
import os

import litserve
import numpy as np
import onnxruntime
from starlette.responses import Response

SHAPE = tuple(int(n) for n in os.environ["SHAPE"].split(","))


class Embed(litserve.LitAPI):
    """As many requests per batch as make up a batch of images."""

    def setup(self, device: str) -> None:
        """Load the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)

    def decode_request(self, request: dict) -> np.ndarray:
        """Pixels of a request."""
        data = base64.b64decode(request["pixels"])
        return np.frombuffer(data, np.uint8).reshape(-1, *SHAPE)

    def batch(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """Requests may have several images each."""
        return inputs

    def predict(
        self, inputs: "list[np.ndarray] | np.ndarray"
    ) -> "list[np.ndarray] | np.ndarray":
        """Run the requests of a batch together; a lone one comes bare."""
        several = inputs if isinstance(inputs, list) else [inputs]
        rows = self.session.run(["embedding"], {"images": np.concatenate(several)})[0]
        found = np.split(rows, np.cumsum([len(images) for images in several])[:-1])
        return found if isinstance(inputs, list) else found[0]

    def unbatch(self, output: list[np.ndarray]) -> list[np.ndarray]:
        """One answer per request."""
        return output

    def encode_response(self, output: np.ndarray) -> Response:
        """Bytes of the vectors."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Embed(max_batch_size=int(os.environ["REQUESTS"]), batch_timeout=0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(
        port=int(os.environ["PORT"]),
        host="127.0.0.1",
        log_level="error",
        generate_client_file=False,
    )
