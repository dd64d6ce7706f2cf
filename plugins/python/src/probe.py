"""Says what this interpreter is, for the plugin that is about to embed it."""

import json
import os
import sys
import sysconfig

of = sysconfig.get_config_var
folders = [of("LIBDIR"), os.path.join(of("LIBDIR") or "", of("MULTIARCH") or ""), of("LIBPL")]
# Where a Python that was moved after it was built has its library.
folders.append(os.path.join(sys.base_prefix, "lib"))
print(
    json.dumps(
        {
            "implementation": sys.implementation.name,
            "version": list(sys.version_info[:3]),
            "free_threaded": bool(of("Py_GIL_DISABLED")),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "library_folders": [folder for folder in folders if folder],
        }
    )
)
