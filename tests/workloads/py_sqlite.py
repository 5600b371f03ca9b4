# sqlite3: files, journals, several connections and threads, user functions, blobs, backup.
import os
import sqlite3
import threading

for mode in ("delete", "wal", "memory", "truncate"):
    name = f"{mode}.db"
    db = sqlite3.connect(name)
    print(db.execute(f"pragma journal_mode={mode}").fetchone())
    db.execute("create table t (id integer primary key, name text, n int)")
    with db:
        db.executemany("insert into t (name, n) values (?, ?)", ((f"row {i}", i % 17) for i in range(2000)))
    db.execute("create index i on t (n)")
    try:
        with db:
            db.execute("insert into t (name) values ('gone')")
            raise RuntimeError
    except RuntimeError:
        pass
    print(db.execute("select count(*), sum(n), max(name) from t where n between 3 and 9").fetchone())
    db.close()
    print(sorted(os.listdir()))
db = sqlite3.connect("wal.db", timeout=60)
reader = sqlite3.connect("wal.db")


def write(k):
    own = sqlite3.connect("wal.db", timeout=60)
    for i in range(10):
        with own:
            own.execute("insert into t (name, n) values (?, ?)", (f"thread {k}", i))
    own.close()


threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print(reader.execute("select count(*), sum(n) from t where name like 'thread%'").fetchone())
db.execute("begin immediate")
other = sqlite3.connect("wal.db", timeout=0.05)
try:
    other.execute("begin immediate")
except sqlite3.OperationalError as error:
    print(error)
db.rollback()
db.create_function("twice", 1, lambda x: x * 2)
print(db.execute("select twice(21)").fetchone())
db.execute("create table b (data blob)")
db.execute("insert into b values (?)", (bytes(range(256)) * 4000,))
db.commit()
print(db.execute("select length(data) from b").fetchone(), db.execute("pragma integrity_check").fetchone())
copy = sqlite3.connect("copy.db")
db.backup(copy)
print(copy.execute("select count(*) from t").fetchone(), sum(len(line) for line in copy.iterdump()) > 1_000_000)
db.execute("vacuum")
