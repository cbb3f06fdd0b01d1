"""The tidy rules find planted violations and accept what is right."""
import unittest

import tidy


def found(name, text):
    return list(tidy.check_file(name, text))


class TidyTest(unittest.TestCase):
    def test_kernels_may_not_include_torch(self):
        self.assertTrue(found("kernels/a.cc", "#include <ATen/Parallel.h>\n"))
        self.assertFalse(found("runtime/a.cc", "#include <ATen/Parallel.h>\n"))

    def test_store_and_runtime_do_not_know_each_other(self):
        self.assertTrue(found("statestore/a.cc", '#include "runtime/engine.h"\n'))
        self.assertTrue(found("runtime/a.cc", '#include "statestore/state_store.h"\n'))
        self.assertFalse(found("runtime/a.cc", '#include "statestore/base/status_macros.h"\n'))

    def test_rocksdb_headers_stay_out_of_headers(self):
        self.assertTrue(found("statestore/a.h", "// c\n// c\n#include <rocksdb/db.h>\n"))
        self.assertFalse(found("statestore/a.cc", "#include <rocksdb/db.h>\n"))

    def test_own_header_comes_first(self):
        self.assertTrue(found("runtime/a.cc", '#include <vector>\n#include "runtime/a.h"\n'))
        self.assertFalse(found("runtime/a.cc", '#include "runtime/a.h"\n#include <vector>\n'))

    def test_long_functions_lines_and_files(self):
        body = "".join("  x();\n" for _ in range(80))
        self.assertTrue(found("runtime/a.cc", "void F() {\n" + body + "}\n"))
        self.assertTrue(found("runtime/a.cc", "class A {\n  void F() {\n" + body.replace("  x", "    x") + "  }\n};\n"))
        self.assertFalse(found("runtime/a.cc", "namespace a {\n" + body + "}\n"))
        self.assertTrue(found("runtime/a.cc", "x" * 101 + "\n"))
        self.assertTrue(found("runtime/a.cc", "x\n" * 501))

    def test_headers_need_comments(self):
        self.assertTrue(found("runtime/a.h", "int x;\n" * 20))
        self.assertFalse(found("runtime/a.h", "// what x is\nint x;\n" * 10))

    def test_a_header_that_nobody_includes_is_dead(self):
        used = [("runtime/a.h", ""), ("runtime/a.cc", '#include "runtime/a.h"\n')]
        self.assertFalse(list(tidy.check_headers_used(used)))
        self.assertTrue(list(tidy.check_headers_used(used[:1])))

    def test_libraries_do_not_print_or_exit(self):
        self.assertTrue(found("runtime/a.cc", "void F() { std::cout << 1; }\n"))
        self.assertTrue(found("runtime/a.cc", "void F() { exit(1); }\n"))
        self.assertTrue(found("statestore/a.cc", "void F() { assert(x); }\n"))
        self.assertFalse(found("runtime/a.cc", "static_assert(sizeof(int) == 4);\n// exit(1)\n"))


if __name__ == "__main__":
    unittest.main()
