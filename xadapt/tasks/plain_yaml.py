"""YAML as recipes and task files may hold it: bounded in what it costs to read, and losing nothing without a word."""

import re
from collections import Counter
from typing import Any

import yaml

# Deeper, or with longer numbers, YAML's parser takes minutes for a hundred kilobytes.
DEEPEST, LONGEST_NUMBER = 20, 40
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_yaml(text: str) -> Any:
    """Parse one YAML document; ValueError, in one line and with the place, for whatever is wrong with it.

    Refused are also aliases, with which a small file grows without bound, deep nesting, numbers of many digits, keys
    that stand twice and halves of surrogate pairs.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, ArithmeticError) as error:  # dates and numbers that do not exist
        raise ValueError(" ".join(str(error).split())[:300]) from error


class _PlainLoader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        if node is not None and (problem := _problem(node)):
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node


def _problem(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        return f"the key {twice[0][:80]!r} stands twice" if twice else ""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if _SURROGATE.search(node.value):
        return "half of a surrogate pair (\\ud800 to \\udfff) is no character"
    number = node.tag.endswith((":int", ":float"))
    return "the number is too long" if number and len(node.value) > LONGEST_NUMBER else ""
