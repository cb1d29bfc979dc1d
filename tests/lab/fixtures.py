"""pytest's way to the lab: `lab`, `node`, `nodes`, `node_factory`, `machine`, `hub`, `real_engine`.

A node is fresh for each test (about a second of wall and of CPU time) and gone after it; `machine` is one for a whole
module. The lab is reused where one runs; where none does it is brought up, and taken down by the last test run that
uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .hub import Hub
from .images import Image
from .lab import Lab
from .node import Node
from .real_engine import NoRealEngine

NodeFactory = Callable[[], Node]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The running lab."""
    with Lab.session() as running:
        yield running


@pytest.fixture(scope="session")
def real_engine(lab: Lab) -> Image:
    """The image of the real vLLM; a test that asks for it is skipped where it can't be had."""
    try:
        return lab.real_engine_image()
    except NoRealEngine as why:
        pytest.skip(str(why))


@pytest.fixture
def node_factory(lab: Lab) -> Iterator[NodeFactory]:
    """Makes fresh nodes, all gone after the test."""
    made: list[Node] = []

    def make() -> Node:
        made.append(lab.add_node())
        return made[-1]

    yield make
    for node in made:
        lab.remove_node(node)


@pytest.fixture
def node(node_factory: NodeFactory) -> Node:
    """One fresh node."""
    return node_factory()


@pytest.fixture
def nodes(node_factory: NodeFactory) -> Callable[[int], list[Node]]:
    """`nodes(3)`: that many fresh nodes."""
    return lambda count: [node_factory() for _ in range(count)]


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Node]:
    """One node for all tests of a module; what a test changes, it or a fixture of its module changes back."""
    made = lab.add_node()
    yield made
    lab.remove_node(made)


@pytest.fixture
def hub(lab: Lab) -> Iterator[Hub]:
    """A model hub of the test's own, which the nodes reach: empty, without faults, its log at zero."""
    with Hub(lab.address) as running:
        yield running
