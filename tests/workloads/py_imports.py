# Many modules of the standard library, as a big program starts.
import importlib

NAMES = """argparse array ast asyncio base64 bisect bz2 calendar cmath codecs collections.abc concurrent.futures configparser
contextlib copy csv ctypes curses dataclasses datetime dbm decimal difflib dis doctest email.message email.mime.multipart enum
fileinput fnmatch fractions ftplib functools gc getpass gettext glob gzip hashlib heapq hmac html.parser http.client http.cookiejar
http.server imaplib importlib.metadata inspect io ipaddress itertools json linecache locale logging.handlers lzma mailbox
math mimetypes mmap multiprocessing.pool netrc operator os pathlib pdb pickle pickletools pkgutil platform plistlib poplib pprint
profile pstats pty queue quopri random re readline resource sched secrets select selectors shelve shlex shutil signal site smtplib
socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sysconfig tabnanny tarfile tempfile termios
textwrap threading timeit token tokenize trace traceback tracemalloc tty types typing unicodedata unittest.mock urllib.request
urllib.robotparser uuid venv warnings wave weakref webbrowser wsgiref.simple_server xml.dom.minidom xml.etree.ElementTree
xml.sax xmlrpc.client zipapp zipfile zlib zoneinfo""".split()
for name in NAMES:
    importlib.import_module(name)
print(len(NAMES), "modules")
