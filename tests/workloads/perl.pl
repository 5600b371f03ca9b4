use strict; use warnings; $| = 1;
use IO::Handle; use IO::Socket::INET; use File::Temp qw(tempdir); use File::Find; use POSIX qw(:sys_wait_h dup2); use Socket; use Time::HiRes qw(sleep);
my %h = map { $_ => length } qw(apple fig banana); print join(",", map { "$_=$h{$_}" } sort keys %h), "\n";
my $dir = tempdir(CLEANUP => 1, DIR => "."); for my $i (1 .. 20) { open(my $f, ">", "$dir/$i") or die; print $f "line $_\n" for 1 .. $i; close $f }
my $size = 0; find(sub { $size += -s if -f }, $dir); print "$size\n";
opendir(my $d, $dir) or die; my @names = grep { !/^\./ } readdir $d; print scalar(@names), "\n";
my $text = `echo backtick; exit 3`; print $text, $? >> 8, "\n";
open(my $p, "-|", "sort", "-r", "$dir/5") or die; print <$p>; close $p;
open(my $w, "|-", "tr a-z A-Z") or die; print $w "piped\n"; close $w;
my $pid = fork; if (!$pid) { exit 7 } waitpid($pid, 0); print WEXITSTATUS($?), "\n";
pipe(my $r, my $wr); if (!fork) { close $r; print $wr "child ", $$ > 0 ? "ok" : "no", "\n"; exit } close $wr; print <$r>; wait;
local $SIG{ALRM} = sub { print "alarm\n"; die "out\n" }; eval { alarm 1; select(undef, undef, undef, 20); }; print $@; alarm 0;
local $SIG{USR1} = sub { print "usr1\n" }; kill USR1 => $$;
my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die; my $port = $server->sockport;
if (!fork) { my $c = IO::Socket::INET->new("127.0.0.1:$port"); print $c "over tcp\n"; exit } my $c = $server->accept; print scalar <$c>; wait;
socketpair(my $near, my $far, AF_UNIX, SOCK_STREAM, PF_UNSPEC); $near->autoflush; print $near "pair\n"; print scalar <$far>;
my $s = "the year 1999, the month 12"; (my $t = $s) =~ s/(\d+)/<$1>/g; print "$t\n"; printf "%s %.3f %b\n", sprintf("%03d", 7), 22 / 7, 10;
print join(" ", sort { $a <=> $b } (10, 9, 100)), "\n"; system("sh", "-c", "exit 2"); print $? >> 8, "\n"; rename "$dir/1", "$dir/one"; print -e "$dir/one" ? "renamed\n" : "no\n"; print "done\n";
