# A wheel with a module, a console script and data, made without any build tool.
import base64
import hashlib
import zipfile

FILES = {
    "greeting/__init__.py": "from .text import hello\n",
    "greeting/text.py": "def hello(name):\n    return f'hello, {name}'\n",
    "greeting/main.py": "import sys\nfrom . import hello\ndef main():\n    print(hello(sys.argv[1]))\n",
    "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting.main:main\n",
}
record = ""
with zipfile.ZipFile("greeting-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in FILES.items():
        wheel.writestr(name, text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    wheel.writestr("greeting-1.0.dist-info/RECORD", record + "greeting-1.0.dist-info/RECORD,,\n")
