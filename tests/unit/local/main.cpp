// gtest's main, and the entry of the processes that the tests start.
#include <gtest/gtest.h>

#include "support.hpp"

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--role") {
    return egw::local::test::run_role({argv + 2, argv + argc});
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
