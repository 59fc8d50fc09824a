import { expect, test } from 'vitest'
import { installScriptFaults } from '../../../scripts/install-scripts.ts'

test('a package with an install script is named in allowScripts, and each name there is a package', () => {
  const packages = {
    '': { hasInstallScript: true },
    'node_modules/named': { hasInstallScript: true },
    'node_modules/a/node_modules/@x/other': { hasInstallScript: true },
    'node_modules/quiet': {},
  }
  expect(installScriptFaults(packages, { named: false, '@x/other': false })).toEqual([])
  expect(installScriptFaults(packages, { named: false, gone: false })).toEqual([
    expect.stringMatching(/^node_modules\/a\/node_modules\/@x\/other: runs a program /),
    'gone: no such package: remove it from allowScripts of package.json',
  ])
})
