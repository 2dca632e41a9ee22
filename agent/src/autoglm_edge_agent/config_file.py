"""Reading the agent's configuration file (TOML), with what the identity says that it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoglm_edge_agent.config import Config
from autoglm_edge_agent.enrolment.settings import with_identity, without_identity
from autoglm_edge_agent.errors import ConfigurationError, DamagedIdentity, StateError
from autoglm_edge_protocol.documents import first_problem
from autoglm_edge_protocol.errors import ProtocolError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_config(path: Path, *, unidentified: bool = False) -> Config:
    """Read the configuration. Raises ConfigurationError.

    `unidentified`: also where the identity that it names is damaged; the configuration then says so.
    """
    problem: str | None = None
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        try:
            values = with_identity(values)
        except DamagedIdentity as error:
            if not unidentified:
                raise
            values, problem = without_identity(values), str(error)
        config = Config.model_validate(values)
        config.broker.address()
        _check_files(config)
    except FileNotFoundError as error:
        if path.exists():
            raise ConfigurationError(f"{path}: {error}") from None
        raise ConfigurationError(f"{path} does not exist; docs/agent.md shows a configuration to start from") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{path} is not TOML: nested too deeply") from None
    except StateError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {first_problem(error)}") from None
    except ProtocolError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return config if problem is None else config.with_damaged_identity(problem)


def _check_files(config: Config) -> None:
    broker, trust = config.broker, config.trust
    given = [("broker", name, getattr(broker, name)) for name in ("ca_file", "cert_file", "key_file")]
    given += [("trust", name, getattr(trust, name)) for name in ("root", "ca_file")]
    names = ("token_file", "cert_file", "key_file", "client_ca_file")
    given += [("inference", name, getattr(config.inference, name)) for name in names]
    for section, name, path in given:
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"[{section}] {name} = {str(path)!r} is no file")
