"""A base model, its adapter and quantization, as a stream of text. Knows nothing of Gradio, storage or safety."""

from model.embedded import Progress
from model.engine import ChatModel, Delta, Description, Finish
from model.loader import load
from model.prompt import ChatMessage
from model.sampling import Sampling

__all__ = ["ChatMessage", "ChatModel", "Delta", "Description", "Finish", "Progress", "Sampling", "load"]
