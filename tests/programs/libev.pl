# Echoes bytes through socket pairs, all watched by one loop of libev's, and counts what came back right.
#
#   perl libev.pl PAIRS ROUNDS
use strict;
use warnings;
use EV;
use Socket;

die "libev took backend " . EV::backend() . "\n" unless EV::backend() == 64;    # EVBACKEND_LINUXAIO
my ($pairs, $rounds) = @ARGV;
my ($open, $right, $ticks, @watchers) = ($pairs, 0, 0);

sub echo {
    my ($watcher, $socket) = @_;
    my $got = sysread $socket, my $bytes, 64;
    if ($got) { syswrite $socket, $bytes; return }
    $watcher->stop;
    EV::break unless --$open;
}

sub play {
    my ($name, $socket) = @_;
    my $left = $rounds;
    return sub {
        my ($watcher, $events) = @_;
        if ($events & EV::WRITE) {
            syswrite $socket, "$name.$left";
            $watcher->events(EV::READ);
        }
        if ($events & EV::READ) {
            sysread $socket, my $bytes, 64;
            $right++ if $bytes eq "$name.$left";
            if (--$left) { $watcher->events(EV::WRITE) }
            else { $watcher->stop; shutdown $socket, 1 }
        }
    };
}

for my $i (1 .. $pairs) {
    socketpair my $near, my $far, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die;
    push @watchers, EV::io($far, EV::READ, sub { echo($_[0], $far) });
    push @watchers, EV::io($near, EV::WRITE, play($i, $near));
}
# What cannot be polled (libev then asks epoll, and at last takes it for ready), what is never ready, and a child.
open my $file, '<', $0 or die;
pipe my $quiet, my $unused or die;
my ($ready, $never, $status) = (0, 0, -1);
push @watchers, EV::io($file, EV::READ, sub { $ready++; $_[0]->stop });
push @watchers, EV::io($quiet, EV::READ, sub { $never++ });
my $pid = fork // die;
exec 'sh', '-c', 'exit 3' unless $pid;
push @watchers, EV::child($pid, 0, sub { $status = $_[0]->rstatus >> 8 });
push @watchers, EV::timer(0.001, 0.001, sub { $ticks++ });
EV::run;
EV::run(EV::RUN_ONCE) while $status < 0 || !$ticks;
print "right $right, file $ready, quiet $never, child $status\n";
