"""llama.cpp's own server, as xllamacpp carries it.

python llama_server.py GGUF PORT THREADS
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[2])
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
params.embedding = True
params.n_parallel = 16  # requests that it takes up at a time
params.n_ctx = 16 * 256
params.n_batch = params.n_ubatch = 2048
params.endpoint_metrics = False

server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
