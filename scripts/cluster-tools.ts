import { installPackages, missingPackages } from './debian-packages.ts'

/**
 * Installs the Debian packages that the tests of the cluster need in addition to those of the
 * ordinary tests.
 */
const missing = missingPackages(new URL('../test/cluster/debian-packages.txt', import.meta.url))
if (missing.length > 0) {
  console.log(`Debian packages that the tests of the cluster use and this host has not: ${missing.join(' ')}`)
  console.log(installPackages(missing) ? 'installed them' : 'not installed (root on Debian could)')
}
