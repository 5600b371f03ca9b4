sqlite3 test.db <<END
create table t (a integer primary key, b text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, 'row ' || i from n;
create index i on t (b);
select count(*), sum(a), max(b) from t;
begin; delete from t where a % 2; rollback;
update t set b = upper(b) where a < 10;
select * from t where a < 4;
pragma integrity_check;
vacuum;
pragma journal_mode=wal;
insert into t (b) values ('wal');
.mode csv
select * from t order by a desc limit 2;
.backup copy.db
END
sqlite3 copy.db .schema 'select count(*) from t'; sqlite3 copy.db .dump | wc -l; sqlite3 test.db 'select none from t' 2>/dev/null; echo $?
sqlite3 ':memory:' 'select 6 * 7'
