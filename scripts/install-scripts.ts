/**
 * The faults of packages with an install script. `packages` is that of package-lock.json,
 * `allowScripts` that of package.json. npm reads the same table, so that no script runs that it
 * does not name.
 */
export function installScriptFaults(
  packages: Readonly<Record<string, { readonly hasInstallScript?: boolean | undefined }>>,
  allowScripts: Readonly<Record<string, boolean>>,
): readonly string[] {
  const names = new Set(Object.keys(packages).map(nameOf))
  return [
    ...Object.entries(packages).flatMap(([path, { hasInstallScript }]) =>
      path !== '' && hasInstallScript === true && !Object.hasOwn(allowScripts, nameOf(path))
        ? [`${path}: runs a program when it is installed; read it, then name it in allowScripts of package.json`]
        : [],
    ),
    ...Object.keys(allowScripts).flatMap(name =>
      names.has(name) ? [] : [`${name}: no such package: remove it from allowScripts of package.json`],
    ),
  ]
}

const nameOf = (path: string): string => path.replace(/^.*node_modules\//, '')
