"""`python -m inference_server test model.py:Model` runs the examples of a class without a server."""

from inference_server._examples import main

if __name__ == "__main__":
    raise SystemExit(main())
