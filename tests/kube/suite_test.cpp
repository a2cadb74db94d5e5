// The suite that every state store passes, over a real API server.
#include "kube/support/backend.hpp"
#include "support/store_suite.hpp"

namespace egw::store_kit {
namespace {

INSTANTIATE_TYPED_TEST_SUITE_P(Kube, StoreSuite, kube::test::KubeBackend);

}  // namespace
}  // namespace egw::store_kit
