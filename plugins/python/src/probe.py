"""Prints the properties of this interpreter for the plugin that embeds it."""

import json
import os
import sys
import sysconfig

get = sysconfig.get_config_var
directories = [get("LIBDIR"), os.path.join(get("LIBDIR") or "", get("MULTIARCH") or ""), get("LIBPL")]
# Location of the library if Python was moved after it was built.
directories.append(os.path.join(sys.base_prefix, "lib"))
print(
    json.dumps(
        {
            "implementation": sys.implementation.name,
            "version": list(sys.version_info[:3]),
            "free_threaded": bool(get("Py_GIL_DISABLED")),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "library_directories": [directory for directory in directories if directory],
        }
    )
)
