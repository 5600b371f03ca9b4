set -e
/usr/bin/python3 -m venv env
env/bin/pip --disable-pip-version-check --no-cache-dir install --no-index ./greeting-1.0-py3-none-any.whl
env/bin/greet pip
env/bin/python -c 'import greeting; print(greeting.hello("python"))'
env/bin/pip --disable-pip-version-check list --format=freeze | grep greeting
env/bin/pip --disable-pip-version-check uninstall -y greeting | tail -1
env/bin/python -c 'import greeting' 2>&1 | tail -1
