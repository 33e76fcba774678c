// The jobs of `millstream bench kafka` with Kafka Streams, which commits each second and caches nothing.
// Arguments: SERVERS JOB INPUT OUTPUT. Prints `ready` when it reads, and ends with its input.

import java.nio.file.Files;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.Stores;

public class Streams {
    public static void main(String[] args) throws Exception {
        String servers = args[0], job = args[1], input = args[2], output = args[3];
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> records = builder.stream(input);
        switch (job) {
            case "stateless" -> records.mapValues(value -> value.toUpperCase()).to(output);
            case "count" -> records.groupByKey()
                .count(Materialized.as(Stores.inMemoryKeyValueStore("counts")))
                .mapValues(count -> count.toString())
                .toStream().to(output, Produced.with(Serdes.String(), Serdes.String()));
            default -> System.exit(3);
        }
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, output + "-streams");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        config.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        config.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("streams").toString());
        config.put(StreamsConfig.producerPrefix("linger.ms"), 0);
        config.put(StreamsConfig.producerPrefix("acks"), "1");
        config.put(StreamsConfig.producerPrefix("enable.idempotence"), false);
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        KafkaStreams streams = new KafkaStreams(builder.build(), config);
        CountDownLatch running = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) running.countDown();
        });
        streams.start();
        running.await();
        System.out.println("ready");
        while (System.in.read() >= 0) { }
        streams.close(Duration.ofSeconds(10));
    }
}
