"""The graph behind mosec: ``GRAPH=... mosec_server.py --address 127.0.0.1 --port N``.

Bodies are raw pixels and raw vectors, which is the least that mosec can be asked to move.
"""

import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

SHAPE = tuple(int(n) for n in os.environ["SHAPE"].split(","))


class Embed(Worker):
    """One worker, as many requests per batch as make up a batch of images."""

    def __init__(self) -> None:
        """Load the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["GRAPH"], options)

    def deserialize(self, data: bytes) -> np.ndarray:
        """Pixels of a request."""
        return np.frombuffer(data, np.uint8).reshape(-1, *SHAPE)

    def serialize(self, data: np.ndarray) -> bytes:
        """Bytes of its vectors."""
        return data.tobytes()

    def forward(self, data: "list[np.ndarray] | np.ndarray") -> "list[np.ndarray] | np.ndarray":
        """Run the requests of a batch together; where there is no batching one comes bare."""
        if isinstance(data, np.ndarray):
            return self.session.run(["embedding"], {"images": data})[0]
        rows = self.session.run(["embedding"], {"images": np.concatenate(data)})[0]
        return np.split(rows, np.cumsum([len(images) for images in data])[:-1])


if __name__ == "__main__":
    most = int(os.environ["REQUESTS"])
    server = Server()
    server.append_worker(Embed, num=1, max_batch_size=most, max_wait_time=1, timeout=60)
    server.run()
