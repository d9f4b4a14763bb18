"""llama.cpp's own server on the embedded model's GGUF file, as a peer; needs `pip install xllamacpp`.

python -m benchmarks.llama_server FILE PORT THREADS PEOPLE
"""

import signal
import sys
from importlib import import_module
from typing import Any

CONTEXT = 1024  # tokens a person


def main() -> None:
    file, port, threads, people = sys.argv[1], *(int(word) for word in sys.argv[2:5])
    library: Any = import_module("xllamacpp")
    wish = library.CommonParams()
    wish.model.path, wish.port, wish.hostnames = file, port, ["127.0.0.1"]
    wish.n_parallel, wish.n_ctx, wish.cpuparams.n_threads = people, CONTEXT * people, threads
    wish.cpuparams_batch.n_threads, wish.verbosity = threads, 0
    wish.chat_template = "gemma"  # the file, a base model's, brings none
    server = library.Server(wish)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
