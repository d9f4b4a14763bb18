"""A base model, its adapter and quantization, as a stream of text. Knows nothing of Gradio, storage or safety."""

import logging
import warnings

# Said at import and at load, about a kernel and a name that we do without.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)

# isort: split
from model.embedded import Progress
from model.engine import ChatModel, Delta, Description, Finish
from model.loader import load
from model.prompt import ChatMessage
from model.sampling import Sampling

__all__ = ["ChatMessage", "ChatModel", "Delta", "Description", "Finish", "Progress", "Sampling", "load"]
