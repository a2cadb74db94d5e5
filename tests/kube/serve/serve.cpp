// Runs an API server with the shipped CRDs (with none: --bare) until standard input ends; prints
// the path of the administrator's kubeconfig. Further arguments are the server's own. For tests in
// Python.
#include <iostream>
#include <string_view>

#include "kube/support/crds.hpp"
#include "kube/support/server.hpp"

int main(int argc, char** argv) {
  using namespace egw::kube::test;
  try {
    const bool bare = argc > 1 && std::string_view(argv[1]) == "--bare";
    ApiServer server(bare ? std::vector<nlohmann::json>{} : shipped_crds(),
                     {argv + (bare ? 2 : 1), argv + argc});
    std::cout << server.kubeconfig("admin") << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
      if (line == "stop") server.stop();
      if (line == "continue") server.go_on();
      if (line == "kill") server.kill();
      if (line == "start") server.start_again();
      std::cout << line << std::endl;
    }
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
  return 0;
}
