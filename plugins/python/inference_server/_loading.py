"""Loads an instance of the class that the settings name. Errors are raised as `LoadError`, with a message for the operator."""

import contextlib
import difflib
import importlib
import importlib.machinery
import inspect
import logging
import os
import pathlib
import sys
import sysconfig
import threading

from inference_server import _documents, _hints, _tasks, _text
from inference_server._loop import Loop, any_asynchronous

log = logging.getLogger("python")

# Maximum number of files in a declared directory that a reload compares.
MAX_FILES = 1000


class LoadError(Exception):
    """The model cannot be loaded. `key` is the setting at fault."""

    def __init__(self, message, key="class"):
        super().__init__(message)
        self.key = key


# Models of one process share its modules, so only one of them imports at a time.
loading = threading.Lock()


def load(*arguments):
    with loading:
        return Model(*arguments)


class Model:
    """A loaded model with its tasks, and the files that it was loaded from."""

    def __init__(self, written, settings, base_dir, threads, is_repeated=False):
        self.is_repeated = is_repeated
        limit_threads(threads)
        place, separator, name = written.rpartition(":")
        if not separator or not place or not name:
            raise LoadError(f"got `{written}`, expected `path/to/file.py:Name` or `package.module:Name`")
        forget_own_modules()
        if place.endswith(".py"):
            module = import_file(os.path.join(base_dir, place))
        else:
            module = import_module(place)
        target = find(module, name, place)
        self.loop = Loop()
        try:
            self.instance = instantiate(target, settings, pathlib.Path(base_dir), self.loop)
            self.describe(target, module, name)
        except _hints.Unsupported as problem:
            self.loop.stop()
            raise LoadError(f"cannot serve `{name}`: {problem}") from None
        except BaseException:
            self.loop.stop()
            raise

    def describe(self, target, module, name):
        self.tasks = self.find_tasks(target, name.rpartition(".")[2])
        declared = declared_files(self.instance, target)
        limit = _hints.attribute(self.instance, "max_batch_size")
        if limit is not None and not (type(limit) is int and limit > 0):
            raise LoadError(f"`max_batch_size` of `{name}` is {limit!r}, expected a positive integer")
        self.max_batch_size = limit
        self.files = sorted({*own_files(module), *declared})

    def find_tasks(self, target, name):
        if inspect.isroutine(target):
            return [_tasks.function_task(target, name, self.loop)]
        own = {module.partition(".")[0] for module, _ in own_modules()}
        discovery = _tasks.Discovery(self.instance, self.loop, own)
        if not self.is_repeated:
            discovery.report()
        return discovery.tasks

    def memory_usage(self):
        """Returns the bytes of the device that are in use, and their maximum since the last call. None if they are not known."""
        own = _tasks.hook(self.instance, "memory_usage")
        if own is not None:
            current, peak = self.loop.call(own)
            return int(current), int(peak)
        torch = sys.modules.get("torch")
        cuda = getattr(torch, "cuda", None)
        if cuda is None or not cuda.is_available() or not cuda.is_initialized():
            return None
        devices = range(cuda.device_count())
        current = sum(cuda.memory_allocated(device) for device in devices)
        peak = sum(cuda.max_memory_allocated(device) for device in devices)
        for device in devices:
            cuda.reset_peak_memory_stats(device)
        return current, peak

    def unload(self):
        unload = _hints.attribute(self.instance, "unload")
        if callable(unload):
            try:
                self.loop.call(unload)
            except BaseException as error:
                log.error("`unload` raised an exception:\n%s", _text.report(error))
        self.loop.stop()


def limit_threads(threads):
    """Sets the size of thread pools that are created later.

    Does so only on the first thread of a process, because other threads could read the environment concurrently.
    """
    if threading.get_native_id() == os.getpid():
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(threads))


# Importing


class FreshLoader(importlib.machinery.SourceFileLoader):
    """Loads modules only from source. Compiled files are identified by the size and the time of the source in seconds, and may be
    outdated after a quick change. Writes no compiled files into the author's directory.
    """

    def path_stats(self, path):
        raise OSError("compiled code is not used")


# Directories of files that settings have named.
folders = set()


def find_fresh(entry):
    """Path hook for these directories and their subdirectories."""
    if not any(entry == folder or entry.startswith(folder + os.sep) for folder in folders):
        raise ImportError(entry)
    extensions = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    return importlib.machinery.FileFinder(entry, extensions, (FreshLoader, [".py"]))


sys.path_hooks.insert(0, find_fresh)


def import_file(path):
    """Imports a file, which can import modules from its directory."""
    path = os.path.realpath(path)
    folder, file_name = os.path.split(path)
    if not os.path.isfile(path):
        raise LoadError(f"{path} does not exist{suggestion(file_name, python_files(folder))}")
    name = file_name[: -len(".py")]
    if "." in name:
        raise LoadError(f"{path} has a dot in its name, which Python interprets as a package: rename the file")
    while folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    if is_own(path):
        folders.add(folder)
        sys.path_importer_cache.pop(folder, None)
    if name in sys.builtin_module_names or name in sys.modules:
        raise LoadError(f"{path} has the name of the module `{name}`, which is already loaded: rename the file")
    return import_module(name, path)


def import_module(name, path=None):
    shown = path or f"module `{name}`"
    try:
        with reported(f"importing {shown}"):
            return importlib.import_module(name)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise LoadError(f"{error.filename}:{error.lineno}: {error.msg}: `{line}`") from None
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            raise LoadError(f"module `{name}` not found in {sys.prefix}") from None
        raise LoadError(
            f"{shown} imports `{error.name}`, which is not installed in {sys.prefix}: install the package that provides it with "
            f"`{sys.executable} -m pip install`"
        ) from None


def find(module, name, place):
    target = module
    for part in name.split("."):
        if not hasattr(target, part):
            known = [key for key, value in vars(target).items() if callable(value) and not key.startswith("_")]
            raise LoadError(f"`{part}` not found in {place}{suggestion(part, known)}")
        target = getattr(target, part)
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        raise LoadError(f"`{name}` in {place} is a value of type `{type(target).__qualname__}`, expected a class or a function")
    return target


def instantiate(target, settings, base_dir, loop):
    if inspect.isroutine(target):
        if settings:
            raise LoadError("functions do not accept settings: use a class with a method `load`", "settings")
        return target
    # Locks and sessions of asynchronous code are bound to the loop that is current when they are created.
    call = loop.call_within if any_asynchronous(target) else loop.call
    with reported(f"instantiating `{target.__qualname__}`"):
        instance = call(target)
    load = _hints.attribute(instance, "load")
    if load is None:
        if settings:
            raise LoadError(f"`{target.__qualname__}` has no method `load` to pass them to", "settings")
        return instance
    parameters = list(inspect.signature(load).parameters)
    arguments = {}
    if "base_dir" in parameters:
        parameters.remove("base_dir")
        arguments["base_dir"] = base_dir
    if parameters:
        arguments[parameters[0]] = read_settings(load, parameters[0], settings)
    elif settings:
        raise LoadError(f"`load` of `{target.__qualname__}` has no parameter for settings", "settings")
    with reported("`load`"):
        result = call(load, **arguments)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise LoadError("`load` is a generator, which would never run: remove `yield`")
    return instance


def declared_files(instance, target):
    """Returns the files that the class declares as opened by `load`. Relative paths are relative to the directory of its file."""
    declared = _hints.attribute(instance, "files")
    if inspect.isroutine(declared):
        if _tasks.has_required_parameters(declared):
            raise _hints.Unsupported("`files` has required parameters, expected a method without parameters that returns paths")
        with reported("`files`"):
            declared = declared()
    if declared is None:
        return []
    if isinstance(declared, (str, os.PathLike)):
        declared = [declared]
    if not isinstance(declared, (list, tuple, set, frozenset)):
        raise _hints.Unsupported(f"`files` is {declared!r:.80}, expected a list of the paths of files that `load` opens")
    directory = os.path.dirname(inspect.getfile(target))
    files = []
    for path in declared:
        if not isinstance(path, (str, os.PathLike)):
            raise _hints.Unsupported(f"`files` contains {path!r:.80}, expected the path of a file or a directory")
        path = os.path.join(directory, os.path.expanduser(os.fsdecode(path)))
        if not os.path.exists(path):
            raise _hints.Unsupported(f"`files` names {path}, which does not exist")
        files.extend(files_in(path) if os.path.isdir(path) else [path])
    return [os.path.abspath(path) for path in files]


def files_in(directory):
    """Returns the directory, which changes with the names in it, and the files in it."""
    found = [directory]
    for folder, folders, names in os.walk(directory):
        found.extend(os.path.join(folder, name) for name in sorted(names + folders))
        if len(found) > MAX_FILES:
            raise _hints.Unsupported(f"`files` names {directory}, which has more than {MAX_FILES} files: name only those that `load` opens")
    return found


def read_settings(load, parameter, settings):
    """Converts the settings to the type of the parameter's hint."""
    hint = _hints.hints_of(load).get(parameter)
    if hint is None or hint is dict:
        return settings
    try:
        _, read = _documents.reader(hint)
        return read(settings) if read else settings
    except _hints.Unsupported as problem:
        raise LoadError(f"type hint of `{parameter}` of `load`: {problem}") from None
    except _documents.InvalidValue as problem:
        key = f"settings.{problem.path}" if problem.path else "settings"
        raise LoadError(problem.message, key) from None


@contextlib.contextmanager
def reported(action):
    """Converts exceptions of the author's code to `LoadError`, and logs the traceback."""
    try:
        yield
    except (LoadError, SyntaxError, ModuleNotFoundError) as error:
        if isinstance(error, (SyntaxError, ModuleNotFoundError)):
            log.error("%s failed:\n%s", action, own_report(error))
        raise
    except BaseException as error:
        log.error("%s failed:\n%s", action, own_report(error))
        raise LoadError(f"{action} raised {_text.name(error)}: {_text.of(error)}{where(error)}") from None


def own_report(error):
    """Formats the traceback, starting at the first frame of the author's code."""
    trace = error.__traceback__
    while trace and is_machinery(trace.tb_frame):
        trace = trace.tb_next
    return _text.report(error.with_traceback(trace))


def is_machinery(frame):
    file = frame.f_code.co_filename
    return _text.is_machinery(frame) or file.startswith("<") or file in (importlib.__file__, contextlib.__file__)


def where(error):
    """Returns the last line of the author's code in a traceback."""
    place, trace = "", error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if not is_machinery(trace.tb_frame) and is_own(file):
            place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


# Ownership of files


INSTALLED = [
    os.path.realpath(path) + os.sep
    for key, path in sysconfig.get_paths().items()
    if key in ("stdlib", "platstdlib", "purelib", "platlib") and path
]


def is_own(file):
    """Whether a file belongs to the author, and not to Python or an installed package."""
    file = os.path.realpath(file)
    installed = f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file
    return not installed and not any(file.startswith(folder) for folder in INSTALLED)


def own_modules():
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in ("__main__", "inference_server"):
            continue
        if isinstance(file, str) and os.path.isabs(file) and is_own(file):
            yield name, file


def own_files(module):
    """Returns the imported files of the author, and those of the module's package, even if it is installed."""
    package = module.__name__.partition(".")[0]
    files = {file for _, file in own_modules()}
    for name, other in list(sys.modules.items()):
        file = getattr(other, "__file__", None)
        if name.partition(".")[0] == package and isinstance(file, str):
            files.add(file)
    return sorted(files)


def forget_own_modules():
    """Removes the author's modules, so that each model in a process imports its own copies from the current files."""
    for name, _ in own_modules():
        del sys.modules[name]
    importlib.invalidate_caches()


# Suggestions


def python_files(folder):
    try:
        return [name for name in os.listdir(folder) if name.endswith(".py")]
    except OSError:
        return []


def suggestion(word, known):
    close = difflib.get_close_matches(word, known, 1)
    return f": did you mean `{close[0]}`?" if close else ""
