"""Everything that knows EasyEdit: finding it, registering our methods with it."""

from .easyedit import Host, load_host
from .registry import register

__all__ = ["Host", "load_host", "register"]
