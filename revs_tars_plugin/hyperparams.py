"""What the hyper-parameters of all methods share: the host's keys, and loading them from YAML with clear errors."""

from __future__ import annotations

import reprlib
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from .errors import InputError, did_you_mean
from .requests.forgotten import ForgetField
from .yaml_files import read_yaml

T = TypeVar("T", bound="UnlearnHyperParams")


@dataclass
class UnlearnHyperParams:
    """Keys that EasyEdit's own methods have too, under the host's names, so one who reads ROME's YAML can read ours.

    Attributes:
        alg_name: The method's name; must be the one of the class.
        model_name: A checkpoint folder (`~` is expanded) or a hub name. EasyEdit chooses the model and tokenizer
            classes by a substring of it.
        rewrite_module_tmp: Name of FF2, the second feed-forward matrix, with `{}` for the layer.
        layer_module_tmp: Name of a decoder layer, with `{}`.
        mlp_module_tmp: Name of a layer's feed-forward block, with `{}`.
        ln_f_module: Name of the final norm.
        lm_head_module: Name of the head, or of the embedding where the two are tied.
        attn_module_tmp: Name of a layer's attention; the host's YAMLs carry it, and the delta attack reads it.
        device: Where the host puts the model. The methods themselves follow the weights.
        layers: The layers to edit; empty means all.
        batch_size: Requests per call of the host's `batch_edit`; the host wants 1 for `edit`.
        max_length: Cut of the host's evaluation prompts, in tokens.
        model_parallel: Let the host spread the model over devices.
        fp16: Let the host load the model in float16 (branch main).
        seed: Seed of the method's own random generator; the global ones are left alone.
        forget_field: Which field of a request holds what is forgotten, for requests without a "forget": `forget`,
            `ground_truth` or `target_new`. Left out, it is guessed, with a warning; see `forgotten_texts`.
        chat_template: Put prompts through the tokenizer's chat template, as what a user says.
        max_output_length: How many tokens the host's `SafetyEditor` lets the model write.
        mom2_dataset: Ordinary text, where a method compares with it: a file, a Hugging Face data set, or `sampled` from
            the model itself.
        mom2_n_samples: How many texts of it.
        mom2_dtype: Part of the name of the host's statistics files.
        stats_dir: Where these files lie.
    """

    alg_name: str
    model_name: str
    rewrite_module_tmp: str
    layer_module_tmp: str
    mlp_module_tmp: str
    ln_f_module: str
    lm_head_module: str
    attn_module_tmp: str = ""
    device: int | str = "cpu"
    layers: list[int] = field(default_factory=list)
    batch_size: int = 1
    max_length: int = 40
    model_parallel: bool = False
    fp16: bool = False
    seed: int = 0
    forget_field: ForgetField = ""
    chat_template: bool = False
    max_output_length: int = 60
    mom2_dataset: str = "sampled"
    mom2_n_samples: int = 64
    mom2_dtype: str = "float32"
    stats_dir: str = "~/.cache/revs-tars-plugin/stats"

    ALGORITHM: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Checks the settings; see `validate`."""
        self.validate()

    def validate(self) -> None:
        """Checks types, names and ranges that need no model; methods do so again, since settings can be changed.

        Raises:
            InputError: Naming the first field that cannot be used.
        """
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            setattr(self, item.name, _converted(item.name, getattr(self, item.name), hints[item.name]))
        if self.alg_name != self.ALGORITHM:
            raise InputError(f'alg_name is "{self.alg_name}", but these are the settings of "{self.ALGORITHM}".')
        if not self.model_name:
            raise InputError("model_name is empty; name a checkpoint folder or a hub model.")
        self.model_name = str(Path(self.model_name).expanduser()) if self.model_name[0] == "~" else self.model_name
        check_templates(self)
        for name in ("batch_size", "max_length", "max_output_length", "mom2_n_samples"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    @classmethod
    def from_hparams(cls: type[T], hparams_name_or_path: str | Path) -> T:
        """Loads the settings from a YAML file, as every hyper-parameter class of the host does.

        Args:
            hparams_name_or_path: A path, with or without `.yaml`, or the name of a packaged file ("smollm2-135m").

        Raises:
            InputError: Unreadable file, unknown or missing key, or a value that cannot be used; names file and key.
        """
        path = cls._find(hparams_name_or_path)
        config = read_yaml(path)
        if not isinstance(config, dict):
            raise InputError(f"{path} holds no settings; it must be a mapping of keys to values.")
        known = {item.name: item for item in fields(cls)}
        for key in config:
            if key not in known:
                raise InputError(f'{path}: unknown key "{key}"{did_you_mean(key, known) or "; remove it"}')
        for name, item in known.items():
            if name not in config and item.default is MISSING and item.default_factory is MISSING:
                raise InputError(f'{path}: the key "{name}" is missing; add it.')
        try:
            return cls(**config)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def _find(cls, name_or_path: str | Path) -> Path:
        text = str(name_or_path)
        file = Path(text if text.endswith((".yaml", ".yml")) else text + ".yaml").expanduser()
        if file.is_file() or len(file.parts) > 1:
            return file
        packaged = packaged_hparams(cls.ALGORITHM) / file.name
        if packaged.is_file():
            return packaged
        names = sorted(path.stem for path in packaged.parent.glob("*.yaml"))
        raise InputError(
            f'There is no file "{file}" and no packaged {cls.ALGORITHM} setting of that name'
            f"{did_you_mean(file.stem, names)} (packaged: {', '.join(names)})"
        )

    @property
    def request_options(self) -> dict[str, Any]:
        """What `read_requests` is told of the settings, by its arguments' names."""
        return {"forget_field": self.forget_field, "chat_template": self.chat_template}

    @property
    def reads_moments(self) -> bool:
        """Whether the method compares with second moments of ordinary text as it is set up."""
        return False

    @property
    def spares_retained_texts(self) -> bool:
        """Whether the method leaves texts alone that come with a request as "retain_texts"."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Returns all settings as a dictionary."""
        return asdict(self)


def check_templates(settings: Any) -> None:
    """Checks the names of modules that stand in every layer.

    Args:
        settings: Settings, or whatever else has their fields.

    Raises:
        InputError: Naming the first that has not one `{}` for the layer.
    """
    for name in ("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp"):
        value = getattr(settings, name)
        if value.count("{}") != 1:
            raise InputError(f'{name} is "{value}"; it needs one "{{}}" where the layer number goes.')


def packaged_hparams(algorithm: str) -> Path:
    """Returns the folder of the YAMLs shipped with the package for one method."""
    here = Path(__file__).parent
    # A wheel carries them inside the package; a checkout keeps them at the top, and so does the host, further up.
    folders = [folder / "hparams" / algorithm for folder in (here, *here.parents[:3])]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _converted(name: str, value: Any, hint: Any) -> Any:
    """Checks `value` against a field's type, reading numbers that YAML left as text ("5e-4").

    Raises:
        InputError: When the value is of another kind.
    """
    options = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if get_origin(option) is Literal:
            choices = get_args(option)
            if value in choices:
                return value
            named = ", ".join(filter(None, choices))
            said = value if isinstance(value, str) else reprlib.repr(value)
            raise InputError(f'{name} is "{said}"; it must be one of {named}{did_you_mean(said, choices)}')
        if get_origin(option) is list and isinstance(value, list | tuple):
            (item,) = get_args(option)
            return [_converted(f"{name}[{position}]", entry, item) for position, entry in enumerate(value)]
        if option is bool and isinstance(value, bool):
            return value
        if option in (int, float) and not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            if option is float:
                return number
            if number.is_integer():
                return int(number)
        if option is str and isinstance(value, str):
            return value
    if value is None and any(get_origin(option) is list for option in options):
        return []
    kinds = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise InputError(f"{name} is {reprlib.repr(value)}, but it must be of type {kinds}.")
