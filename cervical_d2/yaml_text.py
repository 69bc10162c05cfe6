"""YAML that anybody may have written: parsed safely, and no larger than it looks."""

from typing import Any

import yaml

LARGEST = 100_000  # values, with every alias written out: a few lines of aliases of aliases stand for billions


def parse_yaml(text: str) -> Any:
    """What `text` says.

    Raises:
        ValueError: it is not YAML, nested too deeply, or its aliases multiply beyond `LARGEST` values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > LARGEST:
            raise ValueError(f"its aliases stand for more than {LARGEST} values; write out what is meant")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(error)) from error  # PyYAML's constructors trip over values that they did not expect
    finally:
        loader.dispose()


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values `node` stands for; `counted`: those of nodes seen before, by their ids."""
    if id(node) not in counted:
        counted[id(node)] = LARGEST + 1  # stays for a node that contains itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        counted[id(node)] = 1 + sum(_values(child, counted) for child in flat)
    return counted[id(node)]
