import { installPackages, missingPackages } from './debian-packages.ts'

/**
 * Installs the Debian packages that the tests of the cluster need in addition to those of the
 * ordinary tests.
 */
const missing = missingPackages(new URL('../test/cluster/debian-packages.txt', import.meta.url))
if (missing.length > 0) {
  console.log(
    `Debian packages that the tests of the cluster need and that are missing on this host: ${missing.join(' ')}`,
  )
  console.log(
    installPackages(missing)
      ? 'The packages are installed.'
      : 'They are not installed, because only root on Debian can.',
  )
}
