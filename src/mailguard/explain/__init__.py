"""Why a message was judged as it was: `explain` makes the tree, `Explanation` is a node of it."""

from mailguard.explain.explanation import Explanation
from mailguard.explain.tree import explain

__all__ = ["Explanation", "explain"]
