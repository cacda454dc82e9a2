"""Components travel as JSON, and a file can name nothing but components of the allowed packages."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from abc import abstractmethod
from collections.abc import Iterator

import pytest

from insight.runtime.component import Component, class_path, component_from_dict
from insight.runtime.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Wheel(Component):
    """A part.

    Args:
        radius: In metres.
    """

    radius: float = 0.3

    def __post_init__(self) -> None:
        if self.radius <= 0:
            raise ConfigError(f"radius={self.radius}: radius must be above 0", "use 0.3")


@dataclasses.dataclass(frozen=True)
class Vehicle(Component):
    """The kind."""

    @abstractmethod
    def build(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Car(Vehicle):
    """A component with a component, a list of them, and plain values.

    Args:
        front: A part.
        spares: Parts.
        color: Text or nothing.
    """

    front: Wheel = Wheel()
    spares: tuple[Wheel, ...] = ()
    color: str | None = None

    def build(self) -> str:
        return f"car on {self.front.radius}"


ALLOWED = (__name__.split(".")[0],)


def test_round_trip_through_json() -> None:
    car = Car(front=Wheel(0.5), spares=(Wheel(0.1), Wheel(0.2)), color=None)
    data = json.loads(json.dumps(car.to_dict()))
    assert data["class_path"] == f"{__name__}.Car"
    assert data["init_args"]["front"] == {"class_path": f"{__name__}.Wheel", "init_args": {"radius": 0.5}}
    rebuilt = component_from_dict(data, ALLOWED)
    assert isinstance(rebuilt, Car)
    assert rebuilt == car
    assert rebuilt.build() == "car on 0.5"


def test_missing_arguments_take_their_defaults() -> None:
    assert component_from_dict({"class_path": f"{__name__}.Car"}, ALLOWED) == Car()


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Wheel has no field 'radios': did you mean 'radius'\?"):
        component_from_dict({"class_path": f"{__name__}.Wheel", "init_args": {"radios": 1.0}}, ALLOWED)


def test_wrong_value_reaches_the_user_as_the_component_says_it() -> None:
    with pytest.raises(ConfigError, match=r"radius=-1: radius must be above 0: use 0\.3"):
        component_from_dict({"class_path": f"{__name__}.Wheel", "init_args": {"radius": -1}}, ALLOWED)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "insightful.models.Decoder", "Rope", ""])
def test_class_outside_the_allowed_packages_is_refused_without_importing_it(path: str) -> None:
    with pytest.raises(ConfigError, match="outside the allowed packages"):
        component_from_dict({"class_path": path, "init_args": {}})


def test_nested_class_outside_the_allowed_packages_is_refused() -> None:
    data = Car().to_dict()
    data["init_args"]["spares"] = [{"class_path": "os.system", "init_args": {}}]
    with pytest.raises(ConfigError, match="outside the allowed packages"):
        component_from_dict(data, ALLOWED)


@pytest.mark.parametrize(
    "path", ["insight.runtime.files.atomic_write_text", "insight.runtime.run_folder.RunFolder"]
)
def test_what_is_no_component_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="is not a component"):
        component_from_dict({"class_path": path, "init_args": {}})


@pytest.mark.parametrize("path", ["insight.nothing.Rope", "insight.runtime.component.Rope"])
def test_class_that_does_not_exist(path: str) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        component_from_dict({"class_path": path, "init_args": {}})


@pytest.mark.parametrize(
    "data",
    [
        {"class_path": f"{__name__}.Wheel", "init_args": [1]},
        {"class_path": f"{__name__}.Wheel", "init_args": None},
        {"class_path": f"{__name__}.Vehicle", "init_args": {}},
        {"class_path": ["insight"], "init_args": {}},
        ["insight.models.Rope"],
        None,
    ],
)
def test_damaged_data_is_one_error_not_a_traceback(data: object) -> None:
    with pytest.raises(ConfigError):
        component_from_dict(data, ALLOWED)  # type: ignore[arg-type]


def test_missing_required_argument_is_a_config_error() -> None:
    @dataclasses.dataclass(frozen=True)
    class Needy(Component):
        """Args: size: needed."""

        size: int

    sys.modules[__name__].Needy = Needy  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="Needy"):
        component_from_dict({"class_path": f"{__name__}.Needy", "init_args": {}}, ALLOWED)


@pytest.fixture
def public_package() -> Iterator[type]:
    """A class in ``insight.fake.deep.file`` that ``insight.fake`` exports."""
    cls = type("Engine", (), {"__module__": "insight.fake.deep.file"})
    package = types.ModuleType("insight.fake")
    package.Engine = cls  # type: ignore[attr-defined]
    sys.modules["insight.fake"] = package
    yield cls
    del sys.modules["insight.fake"]


def test_class_path_is_the_public_one(public_package: type) -> None:
    assert class_path(public_package) == "insight.fake.Engine"


def test_class_path_of_a_class_that_is_not_exported() -> None:
    assert class_path(Component) == "insight.runtime.component.Component"
    assert class_path(Wheel) == f"{__name__}.Wheel"
