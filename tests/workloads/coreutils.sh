# Most of coreutils, findutils, grep, sed, diff, tar and gzip once.
export LC_ALL=C TZ=UTC
set -e
mkdir -p a/b/c; seq 1 2000 > a/n; printf 'pear\napple\nfig\napple\n' > a/fruit
cp a/n a/b/; cp -r a copy; cp -al a hard; mv copy/b copy/moved; ln -s n a/sym; ln a/n a/hardlink
ls -1R a; ls -l a/n | cut -d' ' -f1,2,5; stat -c '%A %h %s %F' a/n a/sym; stat -c '%A %h %F' a; du -b a/n; readlink -f a/sym | xargs basename
cat a/fruit | sort | uniq -c | sort -rn | sed 's/^ *//'; tac a/fruit; nl a/fruit; rev a/fruit 2>/dev/null || true
head -n 2 a/n; tail -n 2 a/n; tail -c 5 a/n; wc a/n | awk '{print $1,$2,$3}'; cut -c1 a/fruit; paste a/fruit a/fruit | head -1
split -l 500 a/n part.; ls part.*; csplit -s a/n 100 200; ls xx*; cat part.* | cmp - a/n
md5sum a/fruit | cut -d' ' -f1; sha1sum a/fruit | cut -d' ' -f1; sha256sum a/fruit | cut -d' ' -f1; sha512sum a/fruit | cut -c1-20; cksum a/fruit; sum a/fruit; b2sum a/fruit | cut -c1-20
tr a-z A-Z < a/fruit; expand <<END; unexpand -a < a/fruit; fold -w 3 a/fruit | head -3; fmt -w 20 a/fruit; pr -t a/fruit | head -2
	tab
END
sort a/fruit > s1; sort -u a/fruit > s2; comm s1 s2; join s1 s2; shuf -n 1 -e x; tsort <<END
a b
b c
END
seq -s, 5; factor 360; expr 3 + 4; printf '%s-%03d\n' a 7; echo -n no newline; echo; yes x | head -3; basename /a/b.c .c; dirname /a/b; pathchk ok
numfmt --to=iec 1048576; od -An -tx1 a/fruit | head -1; base64 a/fruit; base32 a/fruit | base32 -d | head -1; date -d @0 +%F; date -r a/n +%Y | wc -c
chmod 600 a/n; stat -c %a a/n; chmod u+x,g=r a/n; stat -c %a a/n; chown 1:2 a/n; stat -c %u:%g a/n; chgrp 0 a/n; touch -d 2001-02-03T04:05:06 a/n; stat -c %y a/n; umask 27; touch um; stat -c %a um
truncate -s 100000 big; fallocate -l 200000 big; stat -c %s big; dd if=a/n of=dd bs=100 count=3 skip=2 seek=1 conv=notrunc 2>/dev/null; stat -c %s dd; sync big; shred -u -n1 big; test ! -e big
install -m 755 -D a/n inst/x/y; stat -c %a inst/x/y; mkfifo p; (echo through fifo > p &); cat p; mknod q p; test -p q && rm p q; mktemp -u XXX | wc -c
tee t1 t2 < a/fruit | wc -l; cmp t1 t2; env -i A=1 env; printenv HOME | wc -l; id -u; whoami; groups root | wc -w; nproc | wc -l; uname -s; hostname | wc -l; arch; tty || true; pwd -P | xargs basename | wc -l; logname 2>/dev/null || true
timeout 0.05 sleep 5 || echo $?; nice -n 5 nice; nohup echo hup 2>/dev/null; stdbuf -oL echo buffered; setsid -w echo session; sleep 0.01; kill -0 $$; chroot / echo root
find a -type f | sort; find a -name '*r*' -newer /etc/passwd | sort | head -2; find a -type f -exec wc -c {} + | tail -1 | awk '{print $1}'; find . -empty | sort | head -3; find a -size -1k -printf '%f\n' | sort | xargs -I{} echo '<{}>'
grep -c 1 a/n; grep -rn apple a | sort | head -2; grep -E '^(1|2)0+$' a/n | tail -1; egrep -o '[a-e]+' a/fruit 2>/dev/null | head -2; sed -n '3p;$p' a/n; sed -i 's/apple/kiwi/g' a/fruit; diff a/fruit copy/fruit || true; diff -u s1 s2 | tail -3
tar czf t.tgz a; tar tzf t.tgz | sort; mkdir x; tar xzf t.tgz -C x; diff -r a x/a && echo identical; gzip -k s1; zcat s1.gz | cmp - s1; bzip2 -k s2 2>/dev/null && bzcat s2.bz2 | cmp - s2 || true; xz -k s2 2>/dev/null && xzcat s2.xz | cmp - s2 || true
df -P . | wc -l; ls -la --color=always a | wc -l; dircolors -b | head -1 | cut -c1-9; vdir a | wc -l; realpath --relative-to=a a/b/c; test -s a/n; [ 1 -lt 2 ]; true; false || rm -rf a; ls | wc -l; rmdir inst 2>/dev/null || rm -r inst; unlink um; link s1 s3; cat s3 | head -1
