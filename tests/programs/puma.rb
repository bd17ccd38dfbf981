# puma.rb - a web server and its clients in one process, with nio4r on libev's linuxaio backend.
#
#   LIBEV_FLAGS=64 ruby puma.rb CLIENTS ROUNDS
#
# Puma's reactor waits for connections that are idle between requests, and for requests that come in pieces.
require "nio"
require "puma"
require "puma/server"
require "socket"

clients, rounds = ARGV.map(&:to_i)
selector = NIO::Selector.new
abort "the backend is #{selector.backend}" unless selector.backend == :linuxaio

# The selector alone: a silent pipe is not ready, a full one is, and another thread wakes it.
reader, writer = IO.pipe
selector.register(reader, :r)
silent = selector.select(0.01).to_a.size
writer << "x"
heard = selector.select(10).to_a.size
selector.deregister(reader)
waker = Thread.new { selector.wakeup }
selector.select(10)
waker.join
selector.close

# How long a thread waits for a connection's next request before the reactor does.
Puma::Const.send(:remove_const, :FAST_TRACK_KA_TIMEOUT)
Puma::Const::FAST_TRACK_KA_TIMEOUT = 0.001

app = lambda do |env|
  body = env["rack.input"].read
  [200, { "content-type" => "text/plain", "content-length" => (body.size + 1).to_s }, [body, "\n"]]
end
server = Puma::Server.new(app)
server.add_tcp_listener("127.0.0.1", 0)
server.run
sockets = Array.new(clients) do
  TCPSocket.new("127.0.0.1", server.connected_ports.first).tap { |s| s.setsockopt(:TCP, :NODELAY, true) }
end
right = 0
rounds.times do |round|
  sockets.each { |socket| socket << "POST / HTTP/1.1\r\nHost: localhost\r\n" } # the first piece of everybody's request
  sockets.each_with_index { |socket, i| socket << "Content-Length: 2000\r\n\r\n" << "#{round} #{i} ".ljust(2000, ".") }
  sockets.each_with_index do |socket, i|
    length = 0
    while (line = socket.gets) != "\r\n"
      length = line[/\d+/].to_i if line.downcase.start_with?("content-length:")
    end
    right += 1 if socket.read(length) == "#{round} #{i} ".ljust(2000, ".") + "\n"
  end
end
sockets.each(&:close)
server.stop(true)
puts "silent #{silent}, heard #{heard}, right #{right}"
