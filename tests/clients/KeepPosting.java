import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** OpenJDK's client with its default settings: KeepPosting.java URL BODY COUNT */
class KeepPosting {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        var request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .header("content-type", "application/json")
            .POST(BodyPublishers.ofString(arguments[1]))
            .build();
        int count = Integer.parseInt(arguments[2]);
        Map<String, AtomicInteger> failures = new ConcurrentHashMap<>();
        var threads = Executors.newFixedThreadPool(4);
        for (int number = 0; number < count; number++) {
            threads.submit(() -> {
                String failure = null;
                try {
                    var reply = client.send(request, BodyHandlers.ofString());
                    if (reply.statusCode() != 200) {
                        failure = "status " + reply.statusCode();
                    }
                } catch (Exception exception) {
                    failure = exception.toString();
                }
                if (failure != null) {
                    failures.computeIfAbsent(failure, key -> new AtomicInteger()).incrementAndGet();
                }
            });
        }
        threads.shutdown();
        threads.awaitTermination(10, TimeUnit.MINUTES);
        System.out.println(count + " requests; failures: " + failures);
        System.exit(failures.isEmpty() ? 0 : 1);
    }
}
