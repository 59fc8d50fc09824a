import { installPackages, missingPackages, PACKAGE_TOOLS } from './debian-packages.ts'

/**
 * Installs the Debian packages that the tests of the package need in addition to those of the
 * ordinary tests.
 */
const missing = missingPackages(PACKAGE_TOOLS)
if (missing.length > 0) {
  console.log(`Debian packages that the tests of the package use and this host has not: ${missing.join(' ')}`)
  console.log(installPackages(missing) ? 'installed them' : 'not installed (root on Debian could)')
}
