import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node with k-NN (engine lucene) on loopback, plain HTTP, no sign-in: Node FOLDER PORT. */
public final class Node {
  public static void main(String[] args) throws Exception {
    // Whoever started the node may be killed: then nobody else would end it.
    ProcessHandle.current().parent().orElseThrow().onExit().thenRun(() -> Runtime.getRuntime().halt(1));
    new OpenSearchRunner()
        .onBuild((number, settings) -> {
          settings.put("discovery.type", "single-node");
          settings.put("http.host", "127.0.0.1");
          settings.put("http.port", args[1]);
          settings.put("transport.port", "0");
          // A nearly full disk of a build machine is no reason to refuse a test's writes.
          settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        })
        .build(OpenSearchRunner.newConfigs()
            .basePath(args[0])
            .clusterName("tests")
            .numOfNode(1)
            .useLogger()
            .pluginTypes("org.opensearch.knn.plugin.KNNPlugin"));
    Thread.currentThread().join();
  }
}
