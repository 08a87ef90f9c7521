# Reads what mawktest and fpe_test say and writes JUnit. Each test says "NAME OK" or "NAME had 2 failures"; fpe_test says in one line
# that its results are consistent, or that the "compilation defines" are wrong. A program that ends otherwise than with 0 is an error.
set -eu
cases=$(sed -n \
    -e 's|^\([a-z ]*\) OK$|<testcase classname="mawk" name="\1"/>|p' \
    -e 's|^\([a-z ]*\) had .*failures\{0,1\}$|<testcase classname="mawk" name="\1"><failure/></testcase>|p' \
    -e 's|^results consistent: .*|<testcase classname="mawk" name="floating point exceptions"/>|p' \
    -e 's|^compilation defines for floating point are incorrect$|<testcase classname="mawk" name="floating point exceptions"><failure/></testcase>|p' \
    -e 's|^\([a-z_]*\) FAILED$|<testcase classname="mawk" name="\1"><error/></testcase>|p')
echo "<testsuite name=\"mawk\">"
echo "$cases"
echo "</testsuite>"
