// Threads, pools, streams, files, channels, HTTP over loopback, processes, hashes.
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.Pipe;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

public class Work {
    public static void main(String[] args) throws Exception {
        var pool = Executors.newFixedThreadPool(8);
        List<Future<Long>> parts = new ArrayList<>();
        for (int i = 0; i < 16; i++) {
            final int k = i;
            parts.add(pool.submit(() -> IntStream.range(k * 1000, (k + 1) * 1000).asLongStream().sum()));
        }
        long total = 0;
        for (var part : parts) total += part.get();
        System.out.println(total);
        var map = new ConcurrentHashMap<Integer, Integer>();
        var count = new AtomicLong();
        var latch = new CountDownLatch(4);
        for (int t = 0; t < 4; t++) {
            new Thread(() -> {
                for (int i = 0; i < 10_000; i++) { map.merge(i % 100, 1, Integer::sum); count.incrementAndGet(); }
                latch.countDown();
            }).start();
        }
        latch.await();
        System.out.println(count.get() + " " + map.get(7));
        System.out.println(IntStream.rangeClosed(1, 200_000).parallel().filter(n -> n % 3 == 0).count());

        Path file = Path.of("data.bin");
        Files.write(file, new byte[1 << 20]);
        try (var channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            var mapped = channel.map(FileChannel.MapMode.READ_WRITE, 0, 1 << 20);
            mapped.put(5000, (byte) 42);
            mapped.force();
            var buffer = ByteBuffer.allocate(1);
            channel.read(buffer, 5000);
            System.out.println(buffer.get(0));
        }
        Files.createDirectories(Path.of("x/y"));
        for (int i = 0; i < 20; i++) Files.writeString(Path.of("x/y/" + i), "text " + i);
        try (var walk = Files.walk(Path.of("x"))) { System.out.println(walk.count()); }
        var digest = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file));
        System.out.println(HexFormat.of().formatHex(digest).substring(0, 16));

        var server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.createContext("/", exchange -> {
            byte[] body = ("you asked for " + exchange.getRequestURI()).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.setExecutor(pool);
        server.start();
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        for (int i = 0; i < 5; i++) {
            var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/" + i)).build();
            System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
        }
        server.stop(0);
        pool.shutdown();

        Process process = new ProcessBuilder("/bin/sh", "-c", "echo from a process; exit 3").start();
        System.out.println(new BufferedReader(new InputStreamReader(process.getInputStream())).readLine() + " " + process.waitFor());
        Pipe pipe = Pipe.open();
        pipe.sink().write(ByteBuffer.wrap("pipe".getBytes()));
        var into = ByteBuffer.allocate(10);
        System.out.println(pipe.source().read(into));
        List<byte[]> garbage = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            garbage.add(new byte[1 << 20]);
            if (garbage.size() > 40) garbage.clear();
        }
        System.gc();
        System.out.println("done");
        System.exit(4);
    }
}
