// Runs an API server with the shipped CRDs until standard input ends; prints the path of the
// administrator's kubeconfig. For tests in Python.
#include <iostream>

#include "kube/support/crds.hpp"
#include "kube/support/server.hpp"

int main() {
  using namespace egw::kube::test;
  try {
    ApiServer server(shipped_crds());
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
