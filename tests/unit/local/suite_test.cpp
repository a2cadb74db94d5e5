// The suite that every state store passes, over the local store.
#include "support.hpp"
#include "support/store_suite.hpp"

namespace egw::store_kit {
namespace {

struct LocalBackend {
  local::test::Folder folder;
  TestHost host;
  std::unique_ptr<sdk::StateStore> only = another();

  sdk::StateStore& store() { return *only; }
  std::unique_ptr<sdk::StateStore> another() {
    return std::make_unique<local::LocalStore>(json{{"path", folder.db()}}.dump(), host.services());
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Local, StoreSuite, LocalBackend);

}  // namespace
}  // namespace egw::store_kit
